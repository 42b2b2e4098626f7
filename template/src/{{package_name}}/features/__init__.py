"""The feature tables of this project, one module a subject."""

from .delays import CARRIER_DELAYS, ROUTE_DELAYS
from .facts import AIRPORT_FACTS, PLANE_FACTS
from .weather import WEATHER

FEATURE_TABLES = (WEATHER, CARRIER_DELAYS, ROUTE_DELAYS, PLANE_FACTS, AIRPORT_FACTS)
