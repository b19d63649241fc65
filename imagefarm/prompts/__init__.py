"""Help with words: kinds of pictures as data, and an enhancer that suggests what a prompt leaves unsaid."""
