"""The settings on the page for operators are those of the code."""

from bin.settings import READ_BY_DRILLS, Settings
from bin.variables import names
from tests.docs.settings_table import PAGE, UNWRITTEN, brought_up_to_date, written


def test_the_table_of_settings_is_that_of_the_code() -> None:
    page = PAGE.read_text()
    assert brought_up_to_date(page) == page, "run: .venv/bin/python -m tests.docs.settings_table"


def test_every_setting_is_explained_and_no_other() -> None:
    meanings = written(PAGE.read_text())
    assert set(meanings) == set(names(Settings))
    assert [name for name, meaning in meanings.items() if meaning in ("", UNWRITTEN)] == []


def test_the_settings_of_drills_are_named() -> None:
    page = PAGE.read_text()
    assert [name for name in READ_BY_DRILLS if f"`{name}`" not in page] == []
