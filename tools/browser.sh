#!/usr/bin/env bash
# Installs what the browser tests need: Chromium, and a font with Chinese characters. Uses the package manager that is at hand.
set -euo pipefail

has() { command -v "$1" >/dev/null; }
has_chromium() { has chromium || has chromium-browser || has google-chrome || [ -x "${CHROME_APP:-}" ]; }
has_font() { has fc-list && [ -n "$(fc-list :lang=zh 2>/dev/null)" ]; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

CHROME_APP="/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
if has_chromium && { has_font || [ "$(uname -s)" = Darwin ]; }; then
  echo "Chromium and a font with Chinese characters are installed already"
  exit 0
fi

if has brew; then
  brew install --cask google-chrome # macOS has the fonts
elif [ "$(id -u)" != 0 ] && ! has sudo; then
  echo "make browser installs system packages: run it as root, or install Chromium and Noto Sans CJK yourself" >&2
  exit 1
elif has apt-get; then
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk
elif has dnf; then
  as_root dnf install -y -q chromium google-noto-sans-cjk-fonts
elif has apk; then
  as_root apk add --quiet chromium font-noto-cjk
else
  echo "no apt-get, dnf, apk or brew here: install Chromium (as chromium, chromium-browser or google-chrome on the PATH)" \
    "and a font with Chinese characters, such as Noto Sans CJK" >&2
  exit 1
fi
