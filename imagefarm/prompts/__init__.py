"""Help with prompts: kinds of images as data, and an enhancer that suggests what a prompt leaves out."""
