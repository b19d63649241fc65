"""What leaves a batch: manifest, archive, delivery."""
