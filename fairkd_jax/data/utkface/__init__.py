"""UTKFace: faces whose file names give age, gender and race."""
