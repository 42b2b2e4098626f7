"""Weather at the airport of departure, as last reported."""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..mlops.declarations import Column, FeatureTable

_FEATURES = (
    Column("temp", "double", "Temperature, °F"),
    Column("humid", "double", "Relative humidity, %"),
    Column("wind_speed", "double", "Wind, miles an hour"),
    Column("wind_gust", "double", "Gusts, miles an hour; 0 when none were reported"),
    Column("precip", "double", "Rain, inches in the hour"),
    Column("pressure", "double", "Air pressure, millibar"),
    Column("visib", "double", "Visibility, miles"),
)


def compute(since: datetime, until: datetime, weather: DataFrame) -> DataFrame:
    """One row an airport and hour, known when the observation was published."""
    return weather.where(F.col("available_at") > since).select(
        "origin",
        "available_at",
        *(
            F.coalesce("wind_gust", F.lit(0.0)).alias("wind_gust")
            if column.name == "wind_gust"
            else F.col(column.name)
            for column in _FEATURES
        ),
    )


WEATHER = FeatureTable(
    name="weather_features",
    description="Hourly weather at the airport of departure",
    keys=("origin",),
    features=_FEATURES,
    sources=("weather",),
    compute=compute,
    max_age=timedelta(hours=12),
)
