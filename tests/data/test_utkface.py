"""UTKFace: names, splits, the real archive."""

import hashlib
import re
import tarfile
from collections import Counter

import pytest

from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.data.raw_files import read_archive
from fairkd_jax.data.utkface.file_names import assign_split, parse_name
from fairkd_jax.errors import UsageError


def test_names():
    assert parse_name("19_0_4_20170109142408075.jpg.chip.jpg") == {
        "age": 19,
        "age_group": 0,
        "gender": 0,
        "race": 4,
    }
    assert parse_name("20_1_0_1.jpg") == {"age": 20, "age_group": 1, "gender": 1, "race": 0}
    assert [parse_name(f"{age}_0_0_1.jpg")["age_group"] for age in (0, 39, 40, 116)] == [0, 1, 2, 2]


@pytest.mark.parametrize(
    "name",
    [
        "61_1_20170109150557335.jpg.chip.jpg",
        "24_0_1_20170116220224657 .jpg.chip.jpg",
        "55_0_0_20170116232725357jpg.chip.jpg",
        "20_2_0_1.jpg",
        "20_0_5_1.jpg",
        "117_0_0_1.jpg",
        "-1_0_0_1.jpg",
        "٢٠_0_0_1.jpg",
        "20_0_0_1.jpg\n",
        "20_0_0_1.png",
    ],
)
def test_malformed_names(name):
    with pytest.raises(ValueError, match=r"the (name|age) "):
        parse_name(name)


def test_split_rule():
    names = [f"{i}_0_0_{i}.jpg" for i in range(100)] * 20
    for name in names[:100]:
        share = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 100
        assert assign_split(name) == ("train" if share < 70 else "val" if share < 80 else "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": "colour"},
            "target='colour' is not an attribute of UTKFace; use one of age_group, gender, race",
        ),
        ({"target": "race", "protected": "race"}, "both 'race'"),
        ({}, re.escape("UTKFace needs a source; download UTKFace.tar.gz")),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        open_dataset("utkface", directory=tmp_path, size=16, **options)


def test_choices_lie_in_folders_of_their_own(faces, tmp_path):
    source = str(faces())
    folders = set()
    for options in ({}, {"resize": "pad"}, {"target": "race"}, {"target": "gender", "protected": "race"}):
        dataset = open_dataset("utkface", directory=tmp_path / "d", source=source, size=16, **options)
        folders.add(dataset.info.directory)
    assert len(folders) == 4
    assert dataset.info.class_names == ("male", "female")
    assert dataset.info.group_names == ("White", "Black", "Asian", "Indian", "Other")
    split = dataset.split("train")
    values = [parse_name(name) for name in split.ids]
    assert split.labels.tolist() == [value["gender"] for value in values]
    assert split.groups.tolist() == [value["race"] for value in values]


def test_records_hold_the_raw_attributes(faces, tmp_path):
    import tensorflow_datasets as tfds

    dataset = open_dataset("utkface", directory=tmp_path / "d", source=str(faces()), size=16)
    builder = tfds.builder_from_directory(dataset.info.directory)
    record = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})[3]
    values = parse_name(record["id"].decode())
    assert {name: int(record[name]) for name in ("age", "gender", "race")} == {
        name: values[name] for name in ("age", "gender", "race")
    }
    assert record["image"].startswith(b"\x89PNG")
    assert builder.info.features["label"].names == ["0-19", "20-39", "40+"]


def test_names_of_the_real_archive(real_archive):
    with tarfile.open(real_archive) as archive:
        published = [name.rpartition("/")[2] for name in archive.getnames() if name.endswith(".jpg")]
    names = [file.name for file in read_archive(real_archive, max_bytes=2**20)]
    assert names == published
    bad, counts = [], Counter()
    for name in names:
        try:
            parse_name(name)
        except ValueError:
            bad.append(name)
        else:
            counts[assign_split(name)] += 1
    assert len(bad) == 5
    assert counts == {"train": 6984, "val": 981, "test": 2035}


def test_data_of_other_options_are_never_taken_for_these(faces, tmp_path):
    """One folder of prepared data serves runs by gender and by race, and of either size."""
    common = {"directory": tmp_path / "prepared", "source": str(faces(20))}
    for size in (8, 12):
        for target, protected in (("age_group", "gender"), ("age_group", "race"), ("race", "gender")):
            dataset = open_dataset("utkface", **common, size=size, target=target, protected=protected)
            assert len(dataset.info.group_names) == {"gender": 2, "race": 5}[protected]
            for name in dataset.info.num_examples:
                split = dataset.split(name)
                if len(split):
                    parsed = [parse_name(one) for one in split.ids]
                    assert split.labels.tolist() == [one[target] for one in parsed]
                    assert split.groups.tolist() == [one[protected] for one in parsed]
                    assert split.read_images().shape[1:3] == (size, size)
