"""What a learner faces: episodes of images, drawn and augmented in batches on the device that trains."""
