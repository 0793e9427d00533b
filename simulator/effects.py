"""What the faults at each place mean for the water, the motor, the bearings and the housings.

Severity 0 is sound and 1 the end of what a machine is run with. Signatures are those of ISO 13373-3 and 13373-9, NEMA MG 1
(unbalance) and Gulich, Centrifugal Pumps; sizes are ours, of the order that is met in plants.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulator.motor import Electrics
from simulator.pump import WORST_VOID_RATIO, Hydraulics

Severities = Mapping[str, Mapping[str, float]]  # place -> fault id -> severity
NO_FAULTS: Severities = {}

OF_THE_SHAFT = ("misalignment", "bent_shaft", "coupling_wear")  # one shaft: the other end feels them too
AT_THE_OTHER_END = 0.6
BODY = {"motor_de": "motor", "pump_de": "pump"}  # what is bolted to a bearing housing
OTHER_END = {"motor_de": "pump_de", "pump_de": "motor_de"}
BEARING_HEAT_K = {
    "misalignment": 8.0,
    "lubrication": 12.0,
    "bent_shaft": 4.0,
    "bearing_fluting": 5.0,
    "over_greasing": 25.0,
}
STRAINER_LOSS_BAR = 0.8  # at best flow: a usual pump begins to cavitate near full severity
THROTTLED = 15.0  # resistance of the circuit at full recirculation: about 30 % of best flow
SHUT_POWER = 8.0  # a gate valve does most in the last part of its way
LEAST_OPEN = 0.01


def hydraulics_of(valve_ratio: float, level_bar: float, faults: Severities) -> Hydraulics:
    """What the faults at place "pump" mean for the water."""
    at_pump = faults.get("pump", {})
    shut = at_pump.get("dead_head", 0.0)
    valve_ratio *= THROTTLED ** at_pump.get("recirculation", 0.0)
    valve_ratio /= max(LEAST_OPEN, 1.0 - shut) ** SHUT_POWER
    return Hydraulics(
        valve_ratio,
        suction_loss=at_pump.get("cavitation", 0.0),
        dry=at_pump.get("dry_run", 0.0),
        wear=at_pump.get("impeller_wear", 0.0),
        level_bar=level_bar,
        clogging=at_pump.get("clogged_impeller", 0.0),
        strainer_loss_bar=STRAINER_LOSS_BAR * at_pump.get("clogged_strainer", 0.0),
        void_ratio=WORST_VOID_RATIO * at_pump.get("air_entrainment", 0.0),
        shut=shut > 0.0,
    )


def electrics_of(faults: Severities) -> Electrics:
    """What the faults at place "motor" mean for current, power and heat.

    Unbalanced voltages heat as their square (NEMA MG 1, 14.36: 2 % for each squared per cent); shorted turns carry their own
    current; broken bars give less torque for the slip.
    """
    at_motor = faults.get("motor", {})
    volts = 0.06 * at_motor.get("supply_unbalance", 0.0)
    winding = at_motor.get("stator_electrical", 0.0)
    bars = at_motor.get("broken_rotor_bar", 0.0)
    return Electrics(
        drag_ratio=0.45 * at_motor.get("overload", 0.0),
        extra_slip_ratio=0.25 * bars,
        extra_loss_ratio=200.0 * volts**2 + 0.8 * winding + 0.15 * bars,
        extra_current_ratio=0.12 * winding,
        voltage_unbalance_ratio=volts,
        winding_unbalance_ratio=0.15 * winding,
        beat_ratio=0.06 * bars,
        lost_cooling=at_motor.get("cooling_blocked", 0.0),
    )


def felt_at(faults: Severities, place: str) -> dict[str, float]:
    """The faults that shake one end: its own, its body's, and those of the shaft at the other end at six tenths."""
    felt = {**faults.get(BODY[place], {}), **faults.get(place, {})}
    other = faults.get(OTHER_END[place], {})
    for fault in OF_THE_SHAFT:
        if fault in other:
            felt[fault] = max(felt.get(fault, 0.0), AT_THE_OTHER_END * other[fault])
    return felt


def bearing_heat_k(faults: Mapping[str, float]) -> float:
    """By how much faults at a bearing warm it in the end."""
    spall = max(faults.get(f"bearing_{part}", 0.0) for part in ("outer_race", "inner_race", "ball_cage"))
    return 15.0 * spall**3 + sum(heat_k * faults.get(fault, 0.0) for fault, heat_k in BEARING_HEAT_K.items())
