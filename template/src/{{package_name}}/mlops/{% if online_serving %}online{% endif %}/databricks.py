"""On a workspace: features go to Lakebase, and Model Serving looks them up by itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..declarations import FeatureTable
from ..platform import Platform
from ..registry import Registry
from ..team import PROBLEM
from .endpoint import check_shares
from .store import KNOWN, OnlineStore, Published

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.serving import ServedEntityInput

PATIENCE = timedelta(minutes=45)  # a new version's container is built and started
CAPACITY = "CU_1"
PACKS_TAG = "packs_version"


def _client() -> Any:
    """The feature engineering client, which only a workspace has."""
    try:
        from databricks.feature_engineering import FeatureEngineeringClient
    except ImportError as error:
        raise RuntimeError(
            "databricks-feature-engineering is not installed. Fix: it belongs to the environments "
            "of the jobs features and deployment in resources/; deploy the bundle again."
        ) from error
    return FeatureEngineeringClient()


def store_name(platform: Platform) -> str:
    """Lakebase's name for the store of a schema: no more than letters, digits and dashes."""
    return f"{platform.catalog}-{platform.schema}".replace("_", "-")[:63].strip("-")


def endpoint_name(registry: Registry) -> str:
    """The name of the endpoint that serves a model."""
    return registry.model.replace(".", "-")[:63].strip("-")


class Lakebase(OnlineStore):
    """Databricks' online feature store. Its pipelines copy what has changed in a feature table."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def publish(
        self, platform: Platform, table: FeatureTable, as_of: datetime, anew: bool = False
    ) -> int:
        """Bring the online table up to its feature table, which is up to `as_of`; rows: unknown.

        It follows every change of the feature table, so `anew` changes nothing.
        """
        client, name = _client(), platform.full_name(table.name)
        _declare(platform, table)
        store = client.get_online_store(name=store_name(platform))
        if store is None:
            store = client.create_online_store(name=store_name(platform), capacity=CAPACITY)
        client.publish_table(
            online_store=store,
            source_table_name=name,
            online_table_name=f"{name}_online",
            publish_mode="TRIGGERED",
        )
        return 0

    def published(self) -> dict[str, Published]:
        """Ask the online tables; each counts as published when its newest row became known."""
        found = {}
        for table in PROBLEM.feature_tables:
            online = f"{table.name}_online"
            span = self._platform.span(online, KNOWN)
            if span:
                types = dict(self._platform.read(online).dtypes)
                keys = {key: types[key] for key in table.keys}
                features = {name: types[name] for name in table.feature_names}
                newest = span[1]
                found[table.name] = Published(table.name, online, keys, features, newest, newest, 0)
        return found


def _declare(platform: Platform, table: FeatureTable) -> None:
    """Make the table a feature table: a primary key with its time, and a feed of its changes."""
    name = platform.full_name(table.name)
    known = platform.spark.sql(
        f"SELECT 1 FROM `{platform.catalog}`.information_schema.table_constraints "
        f"WHERE table_schema = '{platform.schema}' AND table_name = '{table.name}' "
        "AND constraint_type = 'PRIMARY KEY'"
    )
    if known.first() is not None:
        return
    for key in (*table.keys, KNOWN):
        platform.spark.sql(f"ALTER TABLE {name} ALTER COLUMN `{key}` SET NOT NULL")
    platform.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    keys = ", ".join(f"`{key}`" for key in table.keys)
    platform.spark.sql(
        f"ALTER TABLE {name} ADD CONSTRAINT `{table.name}_key` "
        f"PRIMARY KEY ({keys}, `{KNOWN}` TIMESERIES)"
    )


class ModelServing:
    """The serving endpoint of the model; the deployment job makes it and changes it.

    What it serves is the estimator of a version, packed with its feature look-ups as a version of
    the model `<name>_online`: automatic look-up needs that, and batches do not.
    """

    def __init__(
        self, platform: Platform, registry: Registry, workspace: WorkspaceClient | None = None
    ) -> None:
        if workspace is None:
            from databricks.sdk import WorkspaceClient

            workspace = WorkspaceClient()
        self._platform, self._registry, self._workspace = platform, registry, workspace
        self.name = endpoint_name(registry)
        self.packed = f"{registry.model}_online"

    def traffic(self) -> dict[str, int]:
        """Ask the endpoint."""
        from databricks.sdk.errors import NotFound

        try:
            config = self._workspace.serving_endpoints.get(self.name).config
        except NotFound:
            return {}
        if config is None or config.traffic_config is None:
            return {}
        routes = config.traffic_config.routes or []
        return {
            str(route.served_entity_name).removeprefix("version-"): route.traffic_percentage
            for route in routes
        }

    def set_traffic(self, shares: Mapping[str, int]) -> None:
        """Create or update the endpoint, and wait until it answers with these versions."""
        from databricks.sdk.errors import NotFound
        from databricks.sdk.service import serving

        check_shares(shares)
        if self.traffic() == dict(shares):
            return
        entities = [self._entity(version) for version in shares]
        traffic = serving.TrafficConfig(
            routes=[
                serving.Route(served_entity_name=f"version-{version}", traffic_percentage=share)
                for version, share in shares.items()
            ]
        )
        api = self._workspace.serving_endpoints
        try:
            api.get(self.name)
        except NotFound:
            config = serving.EndpointCoreConfigInput(
                name=self.name, served_entities=entities, traffic_config=traffic
            )
            api.create_and_wait(
                self.name,
                config=config,
                ai_gateway=serving.AiGatewayConfig(inference_table_config=self._logged()),
                timeout=PATIENCE,
            )
        else:
            api.update_config_and_wait(
                self.name, served_entities=entities, traffic_config=traffic, timeout=PATIENCE
            )
            api.put_ai_gateway(self.name, inference_table_config=self._logged())

    def _logged(self) -> Any:
        from databricks.sdk.service.serving import AiGatewayInferenceTableConfig

        catalog, schema, model = self._registry.model.split(".")
        return AiGatewayInferenceTableConfig(
            enabled=True, catalog_name=catalog, schema_name=schema, table_name_prefix=model
        )

    def _entity(self, version: str) -> ServedEntityInput:
        from databricks.sdk.service.serving import ServedEntityInput

        return ServedEntityInput(
            name=f"version-{version}",
            entity_name=self.packed,
            entity_version=self._packed_version(version),
            workload_size="Small",
            scale_to_zero_enabled=True,
        )

    def _packed_version(self, version: str) -> str:
        """The version of the packed model that holds this version, made when there is none."""
        client = self._registry.client
        for found in client.search_model_versions(f"name = '{self.packed}'"):
            if client.get_model_version(self.packed, found.version).tags.get(PACKS_TAG) == version:
                return str(found.version)
        return self._pack(version)

    def _pack(self, version: str) -> str:
        import mlflow

        uri = self._registry.uri(version)
        estimator = mlflow.sklearn.load_model(uri)
        client = _client()
        classifier = PROBLEM.task == "classification"
        with mlflow.start_run(run_name=f"pack version {version}"):
            info = client.log_model(
                model=estimator,
                artifact_path="model",
                flavor=mlflow.sklearn,
                training_set=self._training_set(client),
                registered_model_name=self.packed,
                pyfunc_predict_fn="predict_proba" if classifier else "predict",
                serialization_format="cloudpickle",
            )
        number = getattr(info, "registered_model_version", None)
        if number is None:  # log_model of older clients returns nothing
            found = self._registry.client.search_model_versions(f"name = '{self.packed}'")
            number = max(int(item.version) for item in found)
        self._registry.client.set_model_version_tag(self.packed, str(number), PACKS_TAG, version)
        return str(number)

    def _training_set(self, client: Any) -> Any:
        """What the look-ups are: keys, time and features of each table, in the model's order."""
        from databricks.feature_engineering import FeatureLookup
        from pyspark.sql import functions as F

        from ..datasets import OBSERVATIONS

        keys = dict.fromkeys(key for table in PROBLEM.feature_tables for key in table.keys)
        asked = dict.fromkeys(column.name for column in PROBLEM.request_features)
        columns = [*(asked | keys), "predict_at"]
        rows = self._platform.read(OBSERVATIONS).select(*columns, F.lit(0.0).alias("label"))
        lookups = [
            FeatureLookup(
                table_name=self._platform.full_name(table.name),
                feature_names=table.feature_names,
                lookup_key=list(table.keys),
                timestamp_lookup_key="predict_at",
                lookback_window=table.max_age,
                default_values={
                    column.name: column.default
                    for column in table.features
                    if column.default is not None
                },
            )
            for table in PROBLEM.feature_tables
        ]
        drop = [name for name in columns if name not in asked]
        return client.create_training_set(
            df=rows.limit(1), feature_lookups=lookups, label="label", exclude_columns=drop
        )
