"""Annex beside the agent: motors, pumps, sensors and field devices that do not exist. They meet over the wire only.

The physics follows published formulas and plausible ranges for one class of machine (7.5 kW motor, end-suction pump).
It serves to exercise the software and to find blunders early. **It is not evidence of real performance**: what a
detector reaches here says nothing about what it reaches on a real machine. For that, see the evaluations on real
recordings.
"""
