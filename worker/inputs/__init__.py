"""What an image starts from: input images, subjects, masks."""
