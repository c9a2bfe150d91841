"""Placement: which instance runs on which GPUs (section 2.7 of the model)."""

from scepsy.placement.bin_packing import WHOLE, Undecided, halved, volume
from scepsy.placement.inventory import Domain, Inventory, inventory_of
from scepsy.placement.packing import TP_SIZES, Placed, Request, largest_group, place
from scepsy.placement.stable_placement import name, place_around, running
from scepsy.placement.sync_waves import Schedule, schedule

__all__ = [
    "TP_SIZES",
    "WHOLE",
    "Domain",
    "Inventory",
    "Placed",
    "Request",
    "Schedule",
    "Undecided",
    "halved",
    "inventory_of",
    "largest_group",
    "name",
    "place",
    "place_around",
    "running",
    "schedule",
    "volume",
]
