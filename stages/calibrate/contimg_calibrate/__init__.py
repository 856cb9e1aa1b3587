"""The calibrate stage: caltables for one Measurement Set."""
