"""Bad answers are refused, with a message that names the field and says what to fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import answers_of, render

UUID = "11111111-2222-3333-4444-555555555555"
REFUSED = [
    ("project_name", "", "at least one visible"),
    ("project_name", "   ", "at least one visible"),
    ("project_name", "x" * 201, "201 characters"),
    ("project_name", "two\nlines", "line break"),
    ("project_name", "bell \x07", "control character"),
    ("project_name", "next\u2028line", "line break"),
    ("package_name", "Flights", "lower-case"),
    ("package_name", "my-flights", "lower-case"),
    ("package_name", "2flights", "letter first"),
    ("package_name", "flights_", "underscores"),
    ("package_name", "flights\n", "lower-case"),
    ("package_name", "flüge", "ASCII"),
    ("package_name", "a" * 31, "31 characters"),
    ("package_name", "class", "keyword"),
    ("package_name", "con", "windows"),
    ("package_name", "json", "stdlib"),
    ("package_name", "pyspark", "dependency"),
    ("package_name", "notebooks", "project"),
    ("description", "two\nlines", "line break"),
    ("owner_email", "nobody", "one address"),
    ("owner_email", "a@b.example, c@d.example", "one address"),
    ("owner_email", "${var.x}@example.com", "one address"),
    ("dev_host", "adb-1.1.azuredatabricks.net", "https"),
    ("staging_host", "http://adb-1.1.azuredatabricks.net", "https"),
    ("prod_host", "https://adb-1.1.azuredatabricks.net/?o=1", "nothing after"),
    ("dev_catalog", "my-catalog", "lower-case"),
    ("dev_catalog", "hive_metastore", "choose another"),
    ("staging_catalog", "dev", "differ"),
    ("prod_catalog", "staging", "differ"),
    ("schema", "1st", "digit"),
    ("schema", "a`; DROP", "lower-case"),
    ("schema", "information_schema", "choose another"),
    ("extra_dev_workspaces", "[berlin]", "a map of names"),
    ("extra_dev_workspaces", "{Berlin: https://adb-1.1.azuredatabricks.net}", "lower-case"),
    ("extra_dev_workspaces", "{berlin: adb-1.1.azuredatabricks.net}", "address of berlin"),
    ("compute", "spark", "Invalid choice"),
    ("features_refresh", "sometimes", "Invalid choice"),
    ("scoring", "sometimes", "Invalid choice"),
    ("sinks", "[fax]", "Invalid choice"),
    ("warehouse", "  ", "at least one visible"),
    ("warehouse", "${var.x}", "without"),
    ("readers", "a`b", "name of a group"),
    ("notify_destination", "${var.x}", "without"),
    ("training_data", "all", "Invalid choice"),
    ("staging_principal", "ci-staging", "application ID"),
    ("prod_principal", "1111", "application ID"),
    ("task", "clustering", "Invalid choice"),
    ("ci", "jenkins", "Invalid choice"),
]


@pytest.mark.parametrize(("field", "answer", "says"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(template: Path, tmp_path: Path, field: str, answer: str, says: str) -> None:
    target = tmp_path / "project"
    command = [sys.executable, "-m", "copier", "copy", "--defaults", "--data", f"{field}={answer}"]
    done = subprocess.run([*command, template, target], text=True, capture_output=True)
    assert done.returncode != 0
    assert not target.exists()
    message = done.stderr.strip().splitlines()[-1]
    assert field in message
    assert says in message


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"features_refresh": "table_update", "source_tables": "[]"}, "at least one table"),
        ({"features_refresh": "table_update", "source_tables": "[a.b]"}, "three parts"),
        (dict.fromkeys(("staging_principal", "prod_principal"), UUID), "must differ"),
    ],
)
def test_refused_together(
    template: Path, tmp_path: Path, answers: dict[str, str], says: str
) -> None:
    data = [part for key, value in answers.items() for part in ("--data", f"{key}={value}")]
    command = [sys.executable, "-m", "copier", "copy", "--defaults", *data, template]
    done = subprocess.run([*command, tmp_path / "project"], text=True, capture_output=True)
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert [*answers][-1] in message
    assert says in message


@pytest.mark.parametrize(
    ("project_name", "package_name"),
    [
        ("Flight delays", "flight_delays"),
        ("Überprüfung: der Flüge", "ueberpruefung_der_fluege"),
        ("2013 flights", "project_2013_flights"),
        ("CON", "con_project"),
        ("Spark ML", "spark_ml"),
        ("航班延误", "ml_project"),
        ("a" * 29 + " b", "a" * 29),
        ("distutils tests concurrent x", "distutils_tests_concurrent_x"),
    ],
)
def test_derived_package_name(
    template: Path, tmp_path: Path, project_name: str, package_name: str
) -> None:
    assert answers_of(render(template, tmp_path, project_name=project_name))["package_name"] == (
        package_name
    )


def test_given_package_name_wins(template: Path, tmp_path: Path) -> None:
    project = render(template, tmp_path, package_name="late_planes")
    assert (project / "src/late_planes/__init__.py").is_file()
    assert answers_of(project)["schema"] == "late_planes"


def test_first_screen_says_what_to_type(template: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "copier", "copy", "--defaults", template, tmp_path / "new"]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "make lifecycle" in done.stdout + done.stderr
    assert str(tmp_path / "new") in done.stdout + done.stderr
