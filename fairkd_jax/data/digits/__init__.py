"""The digits of scikit-learn, painted in one of two tints, with an exactly known bias."""
