"""RELAX itself: inputs, masks, fills and an encoder -> `Explanation`. It knows arrays only: no sound, no hertz, no files.

`attribution` is the door (`RELAX`). A `call` is its validated arguments, `perturbation` makes masked copies, `masked_forward` runs the
encoder on them, `estimation` turns similarities and masks into maps by one of the `estimators`, `stopping` says when it is enough,
`null` what chance alone draws. `masks`, `fills`, `similarity` and `estimators` plug in and do not know one another.
"""
