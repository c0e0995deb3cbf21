"""What each measure of a report means, what it does not mean, and when it misleads."""

from collections.abc import Mapping

# Key of a measure, see `tables.ROWS` -> what it means, and what it does not mean or when it misleads.
MEANINGS: Mapping[str, tuple[str, str]] = {
    "accuracy": (
        "The share of images whose class is predicted; it equals the weighted recall of papers.",
        "It hides rare classes and small groups: both can fail while it stays high.",
    ),
    "precision": (
        "How often a predicted class is right: the mean over classes, weighted by their images.",
        "A class that is never predicted counts as 0. Frequent classes rule it.",
    ),
    "f1": (
        "The harmonic mean of precision and recall: the mean over classes, weighted by their images.",
        "Frequent classes rule it. It treats both kinds of mistakes alike, which your use may not.",
    ),
    "macro_recall": (
        "The mean recall of the classes, each with the same weight.",
        "A class of few images moves it as much as a large class, and much of that is chance.",
    ),
    "worst_group_recall": (
        "The recall of the class and group that is recognised least.",
        "It is the least of many numbers, so chance pulls it down. In small cells it moves a lot.",
    ),
    "mean_abs_disparity": (
        "The difference in recall between the groups, without its sign: the mean over classes.",
        "Chance keeps it above 0 without any bias. It is 0 for a model with one answer for all images.",
    ),
    "floor": (
        "The mean absolute disparity that a model without bias shows on these images, on average.",
        "It is no limit: without any bias, about half of all test sets show more.",
    ),
    "corrected_mean_abs_disparity": (
        "An estimate of the mean absolute disparity with chance taken out.",
        "0 means no more than chance, and not no bias. It is too large where few classes have all of it.",
    ),
    "corrected_interval": (
        "The true mean disparity of this model lies in it, for at least 95 of 100 such test sets.",
        "It is about other test images. It says nothing about other seeds or other data.",
    ),
    "any_bias_p": (
        "How often a model without bias in any class would differ as much between the groups.",
        "A large value is no proof of fairness: few images give it too. A small one tells no size.",
    ),
    "max_abs_disparity": (
        "The largest difference in recall between the groups in any class.",
        "It is the largest of many numbers: in small cells, it is mostly chance.",
    ),
    "rates.spd": (
        "How much more often a class is predicted in one group than in another: the mean over classes.",
        "A perfect model has one too where the groups have other classes. Chance keeps it above 0.",
    ),
    "rates.eod": (
        "The gap of true positive rates between the groups: the mean over classes.",
        "For two groups and more than two classes it is the mean absolute disparity under another name.",
    ),
    "rates.deo": (
        "The larger of the gaps of true and of false positive rates: the mean over classes.",
        "With many classes false positives are rare: it hardly differs from EOD. Chance keeps it above 0.",
    ),
    "rates.aaod": (
        "The mean of the gaps of true and of false positive rates: the mean over classes.",
        "With many classes false positives are rare: it is about half of EOD. Chance keeps it above 0.",
    ),
    "unbiased_accuracy": (
        "The mean recall of all classes in all groups: accuracy if each had as many images.",
        "Cells of few images count as much as large ones, so chance moves it more than accuracy.",
    ),
    "accuracy_with_skew": (
        "Accuracy on images whose group has the most training images of their class.",
        "Alone it says little: read how far it is above accuracy against the skew.",
    ),
    "accuracy_against_skew": (
        "Accuracy on all other images, where what the training images suggest of the group is wrong.",
        "Often few test images: chance moves it. Classes without a skew are left out.",
    ),
    "ece": (
        "How far the highest probability is from the share of right answers, in 15 bins.",
        "A model can be calibrated and wrong, or calibrated for all images and not for a group.",
    ),
    "auroc": (
        "How often an image of a class gets a higher probability of it than another image.",
        "It says nothing about the predicted class: a high area may go with low accuracy.",
    ),
}
