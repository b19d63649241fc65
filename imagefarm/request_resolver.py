"""Turns a job request into a complete recipe, and checks every field against the model's limits."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.messages import N_, Message
from imagefarm.model_entry import LoraEntry, ModelEntry, UpscalerEntry
from imagefarm.recipe import JobRequest, Recipe, Subject

LOSSY_QUALITY = 90
"""Quality of JPEG and WebP files whose request sets none."""
WEBP_SIDE = 16_383
"""Longest side in pixels that WebP allows."""
MAX_PICTURE_PIXELS = 8192 * 8192
"""Largest number of pixels of one finished image, upscaled or not. A worker holds several finished images in memory."""


class RequestResolver:
    """One request for one model. `entries`, `loras` and `upscalers` are the whole catalogue's, by name."""

    def __init__(
        self,
        request: JobRequest,
        entry: ModelEntry,
        *,
        entries: Mapping[str, ModelEntry],
        loras: Mapping[str, LoraEntry],
        upscalers: Mapping[str, UpscalerEntry],
    ) -> None:
        self.request = request
        self.entry = entry
        self.entries = entries
        self.loras = loras
        self.upscalers = upscalers
        self.errors: list[FieldError] = []
        self.width, self.height = self._size()
        self.steps = request.steps or entry.defaults.steps
        self.sampler = request.sampler or entry.defaults.sampler
        self.format = request.format or "png"
        self.scale = request.upscale.scale if request.upscale else 1

    def resolve(self) -> tuple[Recipe, list[str]]:
        """The recipe, and warnings about fields that the model ignores. Raises InvalidRequest with every error."""
        self._check_size()
        self._check_amounts()
        self._check_sampler()
        self._check_loras()
        self._check_images()
        self._check_mask()
        self._check_subject()
        self._check_upscale()
        self._check_format()
        if self.errors:
            raise InvalidRequest(self.errors)
        recipe = self._recipe()
        warnings = []
        if recipe.negative_prompt and "negative_prompt" not in self.entry.features:
            warnings.append(f"model {self.entry.name} takes no negative prompt; it is kept in the recipe but has no effect")
        return recipe, warnings

    def _wrong(self, field: str, detail: str, remedy: str) -> None:
        self.errors.append(FieldError(field=field, detail=detail, remedy=remedy))

    def _size(self) -> tuple[int, int]:
        request, default = self.request, self.entry.defaults
        width, height = request.width or default.width, request.height or default.height
        # a model with fixed sizes gets a square if only one side is given
        if request.width and not request.height and self.entry.limits.sizes:
            height = request.width
        if request.height and not request.width and self.entry.limits.sizes:
            width = request.height
        return width, height

    def _check_size(self) -> None:
        limits, model, width, height = self.entry.limits, self.entry.name, self.width, self.height
        for field, side in (("width", width), ("height", height)):
            nearest = _use(limits.nearest_side(side))
            if not limits.min_side <= side <= limits.max_side:
                allowed = f"{limits.min_side} to {limits.max_side}"
                detail = Message("%(side)s is outside %(allowed)s of model %(model)s", side=side, allowed=allowed, model=model)
                self._wrong(field, detail, nearest)
            elif side % limits.multiple:
                self._wrong(field, Message("%(side)s is not a multiple of %(n)s", side=side, n=limits.multiple), nearest)
        size = f"{width}x{height}"
        if not self.errors and limits.sizes and (width, height) not in limits.sizes:
            detail = Message("model %(model)s does not know %(size)s", model=model, size=size)
            self._wrong("width", detail, _use_one_of(f"{w}x{h}" for w, h in limits.sizes))
        if width * height > limits.max_pixels:
            detail = Message("%(size)s is more than %(most)s pixels", size=size, most=limits.max_pixels)
            self._wrong("width", detail, N_("ask for a smaller picture, or upscale it"))

    def _check_amounts(self) -> None:
        limits, count = self.entry.limits, self.request.count
        if self.steps > limits.max_steps:
            self._wrong("steps", self._above(self.steps, limits.max_steps), _use(self.entry.defaults.steps))
        if count > limits.max_count:
            self._wrong("count", self._above(count, limits.max_count), N_("send several jobs, or a batch"))

    def _above(self, n: int, most: int) -> Message:
        return Message("%(n)s is more than %(most)s, the most of model %(model)s", n=n, most=most, model=self.entry.name)

    def _check_sampler(self) -> None:
        known = self.entry.known_samplers
        if self.sampler not in known:
            detail = Message("model %(model)s has no sampler %(name)s", model=self.entry.name, name=repr(self.sampler))
            self._wrong("sampler", detail, _use_one_of(known))

    def _check_loras(self) -> None:
        loras = self.request.loras
        known = [name for name, item in self.loras.items() if self.entry.family in item.families]
        for position, lora in enumerate(loras):
            if lora.name not in known:
                detail = Message("no LoRA %(name)s for model %(model)s", name=repr(lora.name), model=self.entry.name)
                remedy = Message("known LoRAs: %(names)s", names=", ".join(known) or "–")
                self._wrong(f"loras.{position}.name", detail, remedy)
        if len({lora.name for lora in loras}) < len(loras):
            self._wrong("loras", N_("names a LoRA twice"), N_("name each once"))

    def _check_images(self) -> None:
        request, subject = self.request, self.request.subject
        if request.init_image and "init_image" not in self.entry.features:
            detail = Message("model %(model)s makes pictures from text only", model=self.entry.name)
            self._wrong("init_image", detail, N_("leave it out, or use another model"))
        for field, named in (
            ("init_image", request.init_image),
            ("mask", request.mask),
            ("subject.image", subject and subject.image),
            ("subject.mask", subject and subject.mask),
        ):
            if named and "://" in named:
                self._wrong(field, N_("a URL is not taken here"), N_("send the picture in as an asset, and give its id"))

    def _check_mask(self) -> None:
        request = self.request
        if not request.mask or request.subject:
            return
        if request.init_image is None:
            self._wrong("mask", N_("needs an init_image"), N_("send the picture that it belongs to, or leave it out"))
        elif "inpaint" not in self.entry.features:
            able = ", ".join(name for name, other in self.entries.items() if "inpaint" in other.features)
            detail = Message("model %(model)s cannot paint parts of a picture", model=self.entry.name)
            self._wrong("mask", detail, Message("leave it out, or use one of: %(names)s", names=able or "–"))

    def _check_subject(self) -> None:
        request = self.request
        if request.subject:
            for name in ("init_image", "mask", "strength"):
                if getattr(request, name) is not None:
                    self._wrong(name, N_("a subject already is the starting picture"), N_("leave it out, or send no subject"))
        elif request.strength is not None and request.init_image is None:
            self._wrong("strength", N_("needs an init_image"), N_("leave it out"))

    def _check_upscale(self) -> None:
        upscale, scale = self.request.upscale, self.scale
        if upscale and upscale.model != "lanczos":
            upscaler = self.upscalers.get(upscale.model)
            if upscaler is None:
                names = " or ".join(["lanczos", *self.upscalers])
                self._wrong("upscale.model", Message("no upscaler %(name)s", name=repr(upscale.model)), _use(names))
            elif scale > upscaler.scale:
                detail = Message("upscaler %(name)s enlarges %(n)s times", name=upscale.model, n=upscaler.scale)
                self._wrong("upscale.scale", detail, Message("use %(n)s or less, or lanczos", n=upscaler.scale))
        if self.width * self.height * scale**2 > MAX_PICTURE_PIXELS:
            size = f"{self.width * scale}x{self.height * scale}"
            detail = Message("%(size)s is more than %(most)s pixels", size=size, most=MAX_PICTURE_PIXELS)
            self._wrong("upscale.scale", detail, N_("enlarge less, or make a smaller picture"))

    def _check_format(self) -> None:
        if self.format == "webp" and max(self.width, self.height) * self.scale > WEBP_SIDE:
            self._wrong("format", Message("webp holds at most %(n)s pixels a side", n=WEBP_SIDE), N_("use png or jpeg"))
        if self.format == "png" and self.request.quality is not None:
            remedy = N_("leave it out, or ask for format jpeg or webp")
            self._wrong("quality", N_("png is lossless and has no quality"), remedy)

    def _recipe(self) -> Recipe:
        request, default = self.request, self.entry.defaults
        return Recipe(
            model=self.entry.name,
            prompt=request.prompt,
            negative_prompt=default.negative_prompt if request.negative_prompt is None else request.negative_prompt,
            width=self.width,
            height=self.height,
            steps=self.steps,
            guidance=default.guidance if request.guidance is None else request.guidance,
            sampler=self.sampler,
            # 32 bits, because other tools show such seeds and people retype them
            seed=secrets.randbits(32) if request.seed is None else request.seed,
            loras=request.loras,
            init_image=request.init_image,
            mask=request.mask,
            subject=Subject.model_validate(request.subject.model_dump()) if request.subject else None,
            # a masked area is repainted completely; without a mask the input image should stay recognisable
            strength=(request.strength or (1.0 if request.mask else 0.6)) if request.init_image else None,
            upscale=request.upscale,
            format=self.format,
            quality=None if self.format == "png" else request.quality or LOSSY_QUALITY,
        )


def _use(value: object) -> Message:
    return Message("use %(value)s", value=value)


def _use_one_of(names: Iterable[str]) -> Message:
    return Message("use one of: %(known)s", known=", ".join(names))
