"""On a workspace: features go to Lakebase, and Model Serving looks them up by itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..declarations import FeatureTable
from ..platform import Platform
from ..platform.feature_engineering import client
from ..registry import Registry
from ..team import PROBLEM
from .endpoint import check_shares
from .store import KNOWN, OnlineStore, Published

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.serving import ServedEntityInput

PATIENCE = timedelta(minutes=45)  # a new version's container is built and started
CAPACITY = "CU_1"


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
        fe, name = client(), platform.full_name(table.name)
        # Publishing follows the feed of its changes; the columns are those it has.
        platform.create(table.name, table.features, table.description, changes=True)
        store = fe.get_online_store(name=store_name(platform))
        if store is None:
            store = fe.create_online_store(name=store_name(platform), capacity=CAPACITY)
        fe.publish_table(
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


class ModelServing:
    """The serving endpoint of the model; the deployment job makes it and changes it.

    A version carries its look-ups, so a request brings keys and the endpoint finds the features.
    """

    def __init__(
        self, platform: Platform, registry: Registry, workspace: WorkspaceClient | None = None
    ) -> None:
        if workspace is None:
            from databricks.sdk import WorkspaceClient

            workspace = WorkspaceClient()
        self._platform, self._registry, self._workspace = platform, registry, workspace
        self.name = endpoint_name(registry)

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

        if not self._registry.packed(version):
            raise RuntimeError(
                f"Version {version} of {self._registry.model} was logged without its look-ups, so "
                "no endpoint can serve it. Fix: docs/databricks.md, under Features and models, "
                "then train again."
            )
        return ServedEntityInput(
            name=f"version-{version}",
            entity_name=self._registry.model,
            entity_version=version,
            workload_size="Small",
            scale_to_zero_enabled=True,
        )
