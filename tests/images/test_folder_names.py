import unicodedata

import pytest

from lit_splitmask.images.folder_names import means_date, same_name, split_in, split_of

NAMES = {
    "train": "train Train TRAIN training Training trn train_set train-set TrainSet trainset train_images train-images trainimgs "
    "images_train images-train seg_train train2017 train_2017 train1 01_train train_v2 training_data Train_Data data_train "
    "train.split train_resized train_full trainval train_val2018 train+val class_train Train_Images_Resized",
    "val": "val Val valid validation Validation VALID dev dev_set valid_images val2017 validate seg_val val-set",
    "test": "test Test Testing testing tst test_set testset test1 test-images seg_test TestData test2019 holdout eval "
    "evaluation Test_Set_2",
    "unlabelled": "unlabelled unlabeled Unlabelled unlabeled2017 unlabelled_images train_unlabelled unlabelled-data",
    "predict": "pred seg_pred predict prediction predictions inference pred_images",
}


@pytest.mark.parametrize(("name", "role"), [(name, role) for role, names in NAMES.items() for name in names.split()])
def test_split_names_are_known_in_any_case_and_dress(name: str, role: str) -> None:
    assert split_of(name) == role
    assert split_of(f" {name} ") == role


OTHERS = (
    "trains trainer contrast testosterone protest latest attestation strain invalid devil developer valley value evaluator "
    "predictor predator train_station test_tube steam_train cars_train trainA testB untrained retest entraînement été "
    "images data set 2017 1 _ -"
)


@pytest.mark.parametrize("name", ["", "model train", "test tube", *OTHERS.split()])
def test_names_that_only_contain_such_words_are_no_splits(name: str) -> None:
    assert split_of(name) is None


def test_a_split_may_be_a_part_of_a_name() -> None:
    assert split_in("cars_train") == ("train", ("cars",))
    assert split_in("cars_test_images") == ("test", ("cars",))
    assert split_in("TestB") == ("test", ("b",))
    assert split_in("site2-val") == ("val", ("site", "2"))
    assert split_in("train_and_test") is None
    assert split_in("strains") is None


@pytest.mark.parametrize(
    "name", ["2026-05-01", "2026_05_01", "2026.05", "20260501", "2026-05-01 Berlin", "100CANON", "101MSDCF", "102_PANA"]
)
def test_dates_and_a_cameras_folders_are_known(name: str) -> None:
    assert means_date(name)


@pytest.mark.parametrize(
    "name", ["2026", "2026-13-01", "20261301", "12345678", "001.Albatross", "n01440764", "10", "cat"]
)
def test_other_numbers_are_no_dates(name: str) -> None:
    assert not means_date(name)


def test_a_name_is_the_same_composed_and_decomposed() -> None:
    for name in ("café", "Ångström", "한글", "plain"):
        assert same_name(unicodedata.normalize("NFD", name)) == unicodedata.normalize("NFC", name)
