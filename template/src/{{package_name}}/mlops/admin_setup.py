"""What a platform admin sets up once for an environment, before its first deployment.

A service principal, the federation policies by which CI acts as it without a secret, its place in
the workspace, the catalog, and its rights there. Every step looks first, so it may be repeated;
`dry_run` looks and changes nothing. Who calls it administers the account and the metastore.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from databricks.sdk import AccountClient, WorkspaceClient
    from databricks.sdk.service.iam import ServicePrincipal

CATALOG_PRIVILEGES = ("USE_CATALOG", "CREATE_SCHEMA")
"""Whoever deploys creates the schema, and owns it with all that is in it."""


@dataclass(frozen=True)
class Environment:
    """One environment: whom CI acts as, where."""

    principal: str
    workspace_id: int
    catalog: str
    issuer: str
    subjects: tuple[str, ...]
    audience: str | None = None
    scope: str = ""
    key_vault: str = ""  # resource ID of the Azure Key Vault behind the secret scope; empty: none


def run(
    wanted: Environment,
    account: AccountClient,
    workspace: WorkspaceClient,
    say: Callable[[str], None],
    dry_run: bool = False,
) -> str | None:
    """Make what is missing; return the principal's application ID, None while it has none.

    Raises the workspace's own error at the first step that fails: what was said before it is done,
    and running it again goes on from there.
    """
    principal = _find(account, wanted.principal)
    for name, done, act in _steps(wanted, account, workspace, principal):
        if done:
            say(f"unchanged     {name}")
        elif dry_run:
            say(f"would change  {name}")
        else:
            act()
            say(f"changed       {name}")
    principal = principal or _find(account, wanted.principal)
    return principal.application_id if principal else None


def _find(account: AccountClient, name: str) -> ServicePrincipal | None:
    found = account.service_principals.list(filter=f'displayName eq "{name}"')
    return next((sp for sp in found if sp.display_name == name), None)


def _steps(
    wanted: Environment,
    account: AccountClient,
    workspace: WorkspaceClient,
    principal: ServicePrincipal | None,
) -> Iterator[tuple[str, bool, Callable[[], object]]]:
    """Each step: its name, whether it is done, how to do it. Later ones use the principal made."""
    from databricks.sdk.service.catalog import PermissionsChange, Privilege
    from databricks.sdk.service.iam import WorkspacePermission
    from databricks.sdk.service.oauth2 import FederationPolicy, OidcFederationPolicy

    yield (
        f"service principal {wanted.principal}",
        principal is not None,
        lambda: account.service_principals.create(display_name=wanted.principal, active=True),
    )
    principal = principal or _find(account, wanted.principal)
    number = int(principal.id or 0) if principal else 0
    policies = account.service_principal_federation_policy
    oidc = [p.oidc_policy for p in policies.list(number)] if number else []
    audiences = [wanted.audience] if wanted.audience else None
    for subject in wanted.subjects:
        policy = OidcFederationPolicy(issuer=wanted.issuer, subject=subject, audiences=audiences)
        yield (
            f"federation policy for {subject}",
            any(p and (p.issuer, p.subject) == (policy.issuer, policy.subject) for p in oidc),
            partial(policies.create, number, FederationPolicy(oidc_policy=policy)),
        )
    members = account.workspace_assignment.list(wanted.workspace_id) if number else []
    ids = [m.principal.principal_id for m in members if m.principal]
    yield (
        f"member of workspace {wanted.workspace_id}",
        number in ids,
        lambda: account.workspace_assignment.update(
            wanted.workspace_id, number, permissions=[WorkspacePermission.USER]
        ),
    )
    yield (
        f"catalog {wanted.catalog}",
        wanted.catalog in [catalog.name for catalog in workspace.catalogs.list()],
        lambda: workspace.catalogs.create(wanted.catalog),
    )
    who = principal.application_id if principal else None
    has = set[str]()
    if who:
        api = f"/api/2.1/unity-catalog/permissions/catalog/{wanted.catalog}"
        found = workspace.api_client.do("GET", api, query={"principal": who})
        for grant in found.get("privilege_assignments", []) if isinstance(found, dict) else []:
            has.update(grant.get("privileges", []))
    change = PermissionsChange(
        principal=who, add=[Privilege(p) for p in CATALOG_PRIVILEGES if p not in has]
    )
    yield (
        f"{', '.join(CATALOG_PRIVILEGES)} on catalog {wanted.catalog}",
        has.issuperset(CATALOG_PRIVILEGES),
        lambda: workspace.grants.update("catalog", wanted.catalog, changes=[change]),
    )
    if wanted.key_vault:
        yield from _secrets(wanted, workspace, who)


def _secrets(
    wanted: Environment, workspace: WorkspaceClient, who: str | None
) -> Iterator[tuple[str, bool, Callable[[], object]]]:
    """A scope whose secrets are in Key Vault, and who may read them.

    Raises:
        ValueError: that is no ID of a vault.
    """
    from databricks.sdk.service import workspace as api

    vault = re.fullmatch(r"/subscriptions/.+/Microsoft\.KeyVault/vaults/([\w-]+)", wanted.key_vault)
    if vault is None:
        raise ValueError(
            f"--key-vault: {wanted.key_vault} is no resource ID of a vault. Fix: az keyvault show "
            "--name NAME --query id"
        )
    behind = api.AzureKeyVaultSecretScopeMetadata(
        resource_id=wanted.key_vault, dns_name=f"https://{vault[1]}.vault.azure.net/"
    )
    there = {scope.name: scope.keyvault_metadata for scope in workspace.secrets.list_scopes()}
    found = there.get(wanted.scope)
    yield (
        f"secret scope {wanted.scope}, backed by {vault[1]}",
        found is not None and found.resource_id == behind.resource_id,
        lambda: workspace.secrets.create_scope(
            wanted.scope,
            scope_backend_type=api.ScopeBackendType.AZURE_KEYVAULT,
            backend_azure_keyvault=behind,
        ),
    )
    readers = [acl.principal for acl in workspace.secrets.list_acls(wanted.scope)] if found else []
    yield (
        f"READ on secret scope {wanted.scope}",
        who in readers,
        lambda: workspace.secrets.put_acl(wanted.scope, who or "", api.AclPermission.READ),
    )
