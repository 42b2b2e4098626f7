"""Databricks' feature engineering client: look-ups, models that carry theirs, batch scores.

A packed model is two models in one: outside, what looks its features up by keys (Model Serving and
`score_batch` use it, and Unity Catalog reads the lineage from it); inside, at `PLAIN`, the MLflow
model that predicts from features, which everything else loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .base import LookedUp

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ..declarations import FeatureTable
    from .base import Platform

KNOWN = "available_at"
PLAIN = "data/feature_store/raw_model"
LOADER = "databricks.feature_store.mlflow_model"
_REFUSAL = "can only be registered on a Databricks cluster"


def client() -> Any:
    """The client, which only a workspace has.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        from databricks.feature_engineering import FeatureEngineeringClient
    except ImportError as error:
        raise RuntimeError(
            "databricks-feature-engineering is not installed. Fix: it belongs to the environments "
            "of the jobs in resources/; deploy the bundle again."
        ) from error
    return FeatureEngineeringClient()


def lookups(platform: Platform, at: str, tables: Iterable[FeatureTable]) -> list[Any]:
    """What is looked up in each table, as known at the time in column `at`."""
    from databricks.feature_engineering import FeatureLookup

    return [
        FeatureLookup(
            table_name=platform.full_name(table.name),
            feature_names=table.feature_names,
            lookup_key=list(table.keys),
            timestamp_lookup_key=at,
            lookback_window=table.max_age,
            default_values={
                column.name: column.default
                for column in table.features
                if column.default is not None
            },
        )
        for table in tables
    ]


def look_up(
    platform: Platform, rows: DataFrame, at: str, tables: Sequence[FeatureTable]
) -> DataFrame:
    """Add the features of the tables as they were known at each row's time."""
    found = client().create_training_set(
        df=rows,
        feature_lookups=lookups(platform, at, tables),
        label=None,
        # Else the whole past of each table is read.
        use_timeseries_filtering=True,
    )
    return found.load_df()


def declare(platform: Platform, table: FeatureTable) -> None:
    """Make the table, which is there, a feature table: a primary key with its time."""
    name = platform.full_name(table.name)
    known = platform.spark.sql(
        f"SELECT 1 FROM `{platform.catalog}`.information_schema.table_constraints "
        f"WHERE table_schema = '{platform.schema}' AND table_name = '{table.name}' "
        "AND constraint_type = 'PRIMARY KEY'"
    )
    if known.first() is not None:
        return
    for key in (*table.keys, KNOWN):
        platform.spark.sql(f"DELETE FROM {name} WHERE `{key}` IS NULL")  # no look-up finds them
        platform.spark.sql(f"ALTER TABLE {name} ALTER COLUMN `{key}` SET NOT NULL")
    keys = ", ".join(f"`{key}`" for key in table.keys)
    platform.spark.sql(
        f"ALTER TABLE {name} ADD CONSTRAINT `{table.name}_key` "
        f"PRIMARY KEY ({keys}, `{KNOWN}` TIMESERIES)"
    )


def log_lineage(platform: Platform, versions: Mapping[str, int]) -> None:
    """Name the tables that the active run reads, for the lineage of what it registers."""
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    for table, version in versions.items():
        source = DeltaDatasetSource(
            delta_table_name=platform.full_name(table), delta_table_version=version
        )
        dataset = MetaDataset(source, name=table)  # type: ignore[abstract]
        mlflow.log_input(dataset, context="training")


def registers_packed() -> bool:
    """Whether the MLflow of this process registers packed models.

    Databricks' own build does; the one from PyPI refuses, by the function that is asked here.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model
    from mlflow.store._unity_catalog.registry.rest_store import get_feature_dependencies

    with TemporaryDirectory() as folder:
        Model(flavors={"python_function": {"loader_module": LOADER}}).save(f"{folder}/MLmodel")
        try:
            get_feature_dependencies(folder)
        except MlflowException as error:
            return _REFUSAL not in str(error)
        except Exception:  # it looks for more than there is
            return True
    return True


def pack(
    platform: Platform, estimator: Any, looked_up: LookedUp, options: Mapping[str, Any]
) -> Any:
    """Log a scikit-learn model with its look-ups to the active run."""
    import mlflow

    fe = client()
    beside = [name for name in (*looked_up.keys, looked_up.at) if name not in looked_up.inputs]
    rows = looked_up.rows.select(*looked_up.inputs, *beside, looked_up.label)
    training_set = fe.create_training_set(
        df=rows.limit(1),  # what it is, not what is in it
        feature_lookups=lookups(platform, looked_up.at, looked_up.tables),
        label=looked_up.label,
        exclude_columns=beside,
    )
    return fe.log_model(
        model=estimator,
        artifact_path="model",
        flavor=mlflow.sklearn,
        training_set=training_set,
        output_schema=options["signature"].outputs,
        **options,
    )
