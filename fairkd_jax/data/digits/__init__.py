"""The digits of scikit-learn, painted in one of two tints: a bias that is known exactly."""
