"""Your own images: each fault has its line, and the folder builder gives the same arrays."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.data.utkface.file_names import ATTRIBUTES, assign_split, parse_name
from fairkd_jax.errors import UsageError

GOOD = ["a.png,cat,x,train", "b.png,dog,,train", "c.png,dog,y,validation", "d.png,cat,x,test"]


def open_manifest(manifest, directory, **options):
    return open_dataset("manifest", source=str(manifest), directory=directory, size=20, **options)


def test_rows_keep_their_order(write_manifest, tmp_path, picture):
    dataset = open_manifest(write_manifest(GOOD), tmp_path / "d")
    assert dataset.info.class_names == ("cat", "dog")
    assert dataset.info.group_names == ("x", "y")
    assert dataset.info.num_examples == {"train": 2, "val": 1, "test": 1}
    train = dataset.split("train")
    assert train.ids == ["a.png", "b.png"]
    assert train.labels.tolist() == [0, 1]
    assert train.groups.tolist() == [0, -1]
    assert train.counts.tolist() == [[1, 0], [0, 0]]
    np.testing.assert_array_equal(train[1]["image"], picture(1))


def test_images_can_be_stored_as_jpeg(write_manifest, tmp_path):
    manifest = write_manifest(GOOD)
    png, jpeg = (open_manifest(manifest, tmp_path / "d", quality=quality) for quality in (0, 95))
    assert png.info.directory != jpeg.info.directory
    stored = next(Path(jpeg.info.directory).glob("*train*array_record*")).read_bytes()
    assert b"JFIF" in stored
    difference = png.split("train").read_images().astype(int) - jpeg.split("train").read_images()
    assert 0 < np.abs(difference).mean() < 3
    with pytest.raises(UsageError, match="quality=101"):
        open_manifest(manifest, tmp_path / "d", quality=101)


def test_csv_and_parquet_agree(write_manifest, tmp_path):
    one = open_manifest(write_manifest(GOOD), tmp_path / "d")
    rows = [row.split(",") for row in GOOD]
    columns = dict(zip(("path", "label", "group", "split"), zip(*rows, strict=True), strict=True))
    columns["group"] = [group or None for group in columns["group"]]
    parquet.write_table(pa.table({**columns, "more": [1, 2, 3, 4]}), tmp_path / "m.parquet")
    other = open_manifest(tmp_path / "m.parquet", tmp_path / "d")
    assert one.info.directory != other.info.directory
    for name in one.info.num_examples:
        np.testing.assert_array_equal(one.split(name).read_images(), other.split(name).read_images())
        np.testing.assert_array_equal(one.split(name).groups, other.split(name).groups)


def test_labels_stay_texts_and_paths_may_hold_commas(write_manifest, tmp_path):
    manifest = write_manifest(["a.png,01,1,train", "b.png,1,NA,train"])
    (tmp_path / "a, b.png").write_bytes((tmp_path / "a.png").read_bytes())
    manifest.write_text(manifest.read_text() + '"a, b.png",null,1,train\n')
    names = {"class_names": ("01", "1", "null"), "group_names": ("1", "NA")}
    dataset = open_manifest(manifest, tmp_path / "d", **names)
    assert dataset.info.class_names == ("01", "1", "null")
    assert dataset.info.group_names == ("1", "NA")
    assert dataset.split("train").ids[2] == "a, b.png"


def test_given_names_decide_the_order(write_manifest, tmp_path):
    manifest = write_manifest(GOOD)
    dataset = open_manifest(
        manifest, tmp_path / "d", class_names=["dog", "cat", "cow"], group_names=["y", "x"]
    )
    assert dataset.info.class_names == ("dog", "cat", "cow")
    assert dataset.split("train").labels.tolist() == [1, 0]
    assert dataset.split("train").groups.tolist() == [1, -1]
    assert dataset.info.directory != open_manifest(manifest, tmp_path / "d").info.directory


def test_no_group_is_known(write_manifest, tmp_path):
    dataset = open_manifest(write_manifest(["a.png,cat,,train", "b.png,dog,,train"]), tmp_path / "d")
    train = dataset.split("train")
    assert dataset.info.group_names == ()
    assert train.groups.tolist() == [-1, -1]
    assert train.counts.shape == (0, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*GOOD, "e.png,,x,train"], r"row 5: the label is empty"),
        ([*GOOD, "e.png,cow,x,val"], r"row 5: label 'cow' occurs in val but never in train"),
        (
            [*GOOD, "e.png,cat,x,trian"],
            r"row 5: unknown split 'trian'; use one of validation, train, val, test",
        ),
        ([*GOOD, "e.png,cat,x,"], r"row 5: the split is empty"),
        (["a.png,cat,x,val"], r"no rows in train"),
        ([], r"no rows in train"),
        ([*GOOD, "./a.png,cat,x,test"], r"row 5: ./a.png is in test and, in row 1, in train"),
        ([*GOOD, "./a.png,dog,x,train"], r"row 5: ./a.png has another label or group than in row 1"),
        (
            [*GOOD, "absent1.png,cat,x,test", "absent2.png,cat,x,test"],
            r"2 images .* the first is absent1.png",
        ),
        ([*GOOD, ",cat,x,test"], r"row 5: the path is empty"),
        ([*GOOD, "e.png,cat"], r"cannot be read as CSV"),
    ],
)
def test_faults(write_manifest, tmp_path, rows, message):
    with pytest.raises(UsageError, match=message) as error:
        open_manifest(write_manifest(rows), tmp_path / "d")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ("cat",)}, r"row 2: unknown label 'dog'; use one of cat"),
        ({"group_names": ("x",)}, r"row 3: unknown group 'y'; use one of x"),
        ({"class_names": ("cat", "dog", "cat")}, r"class_names has a name twice"),
        ({"class_names": ("cat", "dog ")}, r"'dog ' is not a valid name"),
        (
            {"colour": 1},
            r"has no option 'colour'; its options are: class_names, group_names, missing",
        ),
    ],
)
def test_faulty_options(write_manifest, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        open_manifest(write_manifest(GOOD), tmp_path / "d", **options)


def test_absent_or_unreadable_manifest(write_manifest, tmp_path):
    with pytest.raises(UsageError, match="needs a source"):
        open_manifest("", tmp_path)
    with pytest.raises(UsageError, match=r"there is no manifest at .*nothing\.csv"):
        open_manifest(tmp_path / "nothing.csv", tmp_path)
    with pytest.raises(UsageError, match="one column 'group'; its columns are: path, label, split"):
        open_manifest(write_manifest([], header="path,label,split"), tmp_path)
    for name, data in (
        ("m.csv", b""),
        ("n.csv", b"path,label,group,split\n\xff.png,a,b,train\n"),
        ("m.parquet", b"no"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match="cannot be read as CSV") as error:
            open_manifest(tmp_path / name, tmp_path)
        assert "\n" not in str(error.value)


def test_images_are_not_needed_once_prepared(write_manifest, tmp_path):
    manifest = write_manifest(GOOD)
    prepared = open_manifest(manifest, tmp_path / "d")
    (tmp_path / "a.png").unlink()
    assert open_manifest(manifest, tmp_path / "d").info == prepared.info


def test_manifest_agrees_with_the_folder(faces, tmp_path):
    folder = faces(60)
    rows = ["path,label,group,split"]
    for path in sorted(folder.iterdir()):
        values = parse_name(path.name)
        label = ATTRIBUTES["age_group"][values["age_group"]]
        group = ATTRIBUTES["gender"][values["gender"]]
        rows.append(f"faces/{path.name},{label},{group},{assign_split(path.name)}")
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(rows))
    names = {"class_names": ATTRIBUTES["age_group"], "group_names": ATTRIBUTES["gender"]}
    one = open_manifest(manifest, tmp_path / "d", **names)
    other = open_dataset("utkface", source=str(folder), directory=tmp_path / "d", size=20)
    assert one.info.num_examples == other.info.num_examples
    assert len(one.info.num_examples) == 3
    for name in one.info.num_examples:
        mine, theirs = one.split(name), other.split(name)
        np.testing.assert_array_equal(mine.read_images(), theirs.read_images())
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        np.testing.assert_array_equal(mine.groups, theirs.groups)


SUSPECTS = ("NA", "N/A", "nan", "None", "null", "NULL", "unknown", "?", "-1", "NaN", "n/a")


@pytest.mark.parametrize("text", SUSPECTS)
def test_a_text_that_looks_like_a_missing_group_is_refused_or_named_by_the_user(
    write_manifest, tmp_path, text
):
    """It would be a third group, and pull every disparity towards it."""
    manifest = write_manifest(["a.png,cat,x,train", "b.png,dog,y,train", f"c.png,dog, {text} ,test"])
    with pytest.raises(UsageError) as refused:
        open_manifest(manifest, tmp_path / "d")
    assert f"row 3: the group {text!r} looks like a missing value; set data.manifest.missing=(" in str(
        refused.value
    )
    assert str(refused.value).endswith("or list the name in data.manifest.group_names")
    left_out = open_manifest(manifest, tmp_path / "d", missing=(text,))
    assert left_out.info.group_names == ("x", "y")
    assert left_out.split("test").groups.tolist() == [-1]
    kept = open_manifest(manifest, tmp_path / "d", group_names=("x", "y", text))
    assert kept.split("test").groups.tolist() == [2]
    assert left_out.info.directory != kept.info.directory


@pytest.mark.parametrize("column", ["label", "split"])
@pytest.mark.parametrize("text", ["", "NA", "null", "?"])
def test_a_missing_label_or_split_is_refused(write_manifest, tmp_path, column, text):
    row = f"b.png,{text},x,train" if column == "label" else f"b.png,dog,x,{text}"
    manifest = write_manifest(["a.png,cat,x,train", "b.png,dog,x,train", row])
    with pytest.raises(UsageError, match=rf"row 3: (the|unknown) {column}"):
        open_manifest(manifest, tmp_path / "d")
    if column == "label" and text:
        with pytest.raises(UsageError, match="row 3: the label is empty"):
            open_manifest(manifest, tmp_path / "d", missing=(text,))


def test_minus_one_is_a_value_beside_one_alone(write_manifest, tmp_path):
    manifest = write_manifest(["a.png,-1,-1,train", "b.png,1,1,train", "c.png,1,,test"])
    dataset = open_manifest(manifest, tmp_path / "d")
    assert dataset.info.class_names == dataset.info.group_names == ("-1", "1")
    assert dataset.split("test").groups.tolist() == [-1]


@pytest.mark.parametrize(
    "values", [[1.0, float("nan"), 0.0], [1.0, None, 0.0], ["1", None, "0"], ["1", "", "0"]]
)
def test_missing_values_of_every_kind_of_column_are_an_unknown_group(write_manifest, tmp_path, values):
    write_manifest(["a.png,cat,x,train", "b.png,dog,y,train"])
    columns = {"path": ["a.png", "b.png", "b.png"], "label": ["cat", "dog", "dog"], "split": ["train"] * 3}
    columns["path"][2] = "c.png"
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    parquet.write_table(pa.table(columns | {"group": values}), tmp_path / "m.parquet")
    dataset = open_manifest(tmp_path / "m.parquet", tmp_path / "d")
    assert dataset.info.group_names == ("0", "1")
    assert dataset.split("train").groups.tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    "twins", [("Male", "male"), ("m\u00e9l", "me\u0301l"), ("a b", "a  b"), ("M", "\uff2d")]
)
def test_names_that_look_alike_are_named_in_one_warning(write_manifest, tmp_path, twins, caplog):
    manifest = write_manifest([f"a.png,cat,{twins[0]},train", f"b.png,dog,{twins[1]},train"])
    dataset = open_manifest(manifest, tmp_path / "d")
    assert set(dataset.info.group_names) == set(twins)
    (message,) = [record.getMessage() for record in caplog.records if "differ by case" in record.getMessage()]
    assert all(ascii(name) in message for name in twins)
