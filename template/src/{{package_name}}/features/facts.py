"""Facts on planes and airports: a row a fact became known, seldom a second one."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..mlops.declarations import Column, FeatureTable


def compute_planes(since: datetime, until: datetime, planes: DataFrame) -> DataFrame:
    """One row a plane."""
    return planes.where(F.col("available_at") > since).select(
        "tailnum",
        "available_at",
        F.col("year").alias("plane_year"),
        F.col("seats").cast("double").alias("seats"),
    )


def compute_airports(since: datetime, until: datetime, airports: DataFrame) -> DataFrame:
    """One row an airport of arrival."""
    return airports.where(F.col("available_at") > since).select(
        F.col("faa").alias("dest"),
        "available_at",
        F.col("lat").alias("dest_lat"),
        F.col("lon").alias("dest_lon"),
    )


PLANE_FACTS = FeatureTable(
    name="plane_facts",
    description="Age and size of each plane",
    keys=("tailnum",),
    features=(
        Column("plane_year", "double", "Year the plane was built"),
        Column("seats", "double", "Seats of the plane"),
    ),
    sources=("planes",),
    compute=compute_planes,
)
AIRPORT_FACTS = FeatureTable(
    name="airport_facts",
    description="Where the airport of arrival lies",
    keys=("dest",),
    features=(
        Column("dest_lat", "double", "Latitude of the airport of arrival"),
        Column("dest_lon", "double", "Longitude of the airport of arrival"),
    ),
    sources=("airports",),
    compute=compute_airports,
)
