"""Keys of the data and of their augmentation, each with its default and its meaning."""

from fairkd_jax.configs.keys import Key

DATA_KEYS = (
    Key("data.name", "digits", "Name of the data set: digits, utkface, wider_attribute or manifest."),
    Key(
        "data.source",
        "",
        "Folder, archive or manifest that holds the images; empty for digits, and for data that are already"
        " prepared.",
    ),
    Key(
        "data.directory",
        "",
        "Folder of all prepared data; empty takes $FAIRKD_DATA or ~/.cache/fairkd_jax/datasets.",
    ),
    Key(
        "data.seed",
        0,
        "Random seed of the order of the images, of the augmentation and of the control shuffle.",
    ),
    Key("data.size", 32, "Side in pixels of the stored images, which are square."),
    Key(
        "data.resize", "squash", "How an image becomes square: squash, or pad, which keeps the aspect ratio."
    ),
    Key("data.quality", 0, "JPEG quality of the stored images, 1 to 100; 0 stores PNG, which loses nothing."),
    Key("data.image_size", 32, "Side in pixels of the images that the models see."),
    Key(
        "data.cache",
        "auto",
        "Place of the decoded images: device, host or none; auto takes the first place with enough memory.",
    ),
    Key("data.balance_groups", False, "Whether to draw the groups of a class equally often in training."),
    Key(
        "data.control",
        "none",
        "Control experiment: patch marks the group in each image, and shuffle deals out the groups of the"
        " training images again within each class; none for no control.",
    ),
    Key("data.max_bad_fraction", 0.01, "Largest share of files that may be malformed or unreadable."),
    Key("data.max_file_mib", 32.0, "Largest size of an image file in MiB; a larger file is skipped."),
    Key(
        "data.allow_duplicates",
        False,
        "Whether equal images may be in two splits. Otherwise a manifest with such images is refused; of a"
        " published data set, a copy of a test image leaves train and val, and a copy of a val image leaves"
        " train.",
    ),
    Key(
        "data.digits.skew",
        0.9,
        "Share of the digits of a class with the class's own tint, in train and val, from 0 to 1.",
    ),
    Key("data.digits.noise", 0.0, "Standard deviation of the noise on grey values, which lie in [0, 1]."),
    Key("data.digits.seed", 0, "Random seed of the tints and of the noise."),
    Key("data.utkface.target", "age_group", "Attribute that gives the label: age_group, race or gender."),
    Key("data.utkface.protected", "gender", "Attribute that gives the group: gender, race or age_group."),
    Key(
        "data.wider_attribute.group_rule",
        "majority",
        "Rule of the group: majority takes the more frequent gender, and a tie is unknown. fraction is male"
        " where at least half of all persons are male, else female.",
    ),
    Key(
        "data.wider_attribute.split_rule",
        "official",
        "Rule of the splits: official keeps the published splits. half_test joins train, val and half of"
        " test, and makes a tenth of them the validation split.",
    ),
    Key("data.wider_attribute.split_seed", 0, "Random seed of the split rule half_test."),
    Key(
        "data.manifest.class_names",
        (),
        "Names of the classes in the wanted order; empty sorts the names, numbers by value.",
    ),
    Key(
        "data.manifest.group_names",
        (),
        "Names of the groups in the wanted order; empty sorts the names, numbers by value.",
    ),
    Key("data.manifest.missing", (), "Texts that mean a missing value, as an empty cell does."),
    Key(
        "augment.crop_scale",
        1.0,
        "Smallest share of the area that a random crop keeps; 1.0 for no crop.",
    ),
    Key("augment.flip", False, "Whether to mirror half of the images left to right."),
    Key("augment.brightness", 0.0, "Largest random change of the brightness, as a share; 0.0 for no change."),
    Key("augment.contrast", 0.0, "Largest random change of the contrast, as a share; 0.0 for no change."),
    Key("augment.saturation", 0.0, "Largest random change of the saturation, as a share; 0.0 for no change."),
)
