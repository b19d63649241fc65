"""The render loop: claims ahead, progress, heartbeat, commands."""
