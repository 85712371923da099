"""The page of the published datasets. Table 9 and the page as a whole are checked with the recipes."""

from lit_splitmask.commands import tables
from lit_splitmask.datamodules.paper import TABLE_3, TABLE_9


def test_table_3_has_the_papers_datasets_in_its_order() -> None:
    header, *rows = tables.table_3()
    assert [row[0] for row in rows] == list(TABLE_3)
    assert len(rows) == 10
    assert all(len(row) == len(header) for row in rows)
    assert rows[-1] == ["COCO", "118,287", "5,000", "80", "3,000", "3,249", "0.923"]


def test_table_9_is_about_datasets_of_table_3() -> None:
    assert set(TABLE_9) < set(TABLE_3)


def test_every_published_dataset_is_listed_under_the_name_in_its_recipe() -> None:
    listed = tables.published_sets()
    assert (listed["food101"].title, listed["cars"].title) == ("Food-101", "Stanford Cars")
    assert all(f"| {name} | {facts.where} |" in tables.page() for name, facts in listed.items())
