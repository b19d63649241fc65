"""Inputs of images: input images, subjects, masks."""
