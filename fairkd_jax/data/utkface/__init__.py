"""UTKFace: images of faces whose file names contain age, gender and race."""
