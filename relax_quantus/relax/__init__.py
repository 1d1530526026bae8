"""Explain inputs by masking them: inputs, masks, fills and an encoder -> `Explanation`.

It knows arrays only: no sound, no hertz, no files.

`attribution` is the door (`RELAX`). `call` lists its arguments and checks them into inputs that can
be masked, `masked_forward` draws the masks and compares the encoder's embeddings of masked copies,
which `execution` runs, `estimation` turns similarities and masks into maps by one of the
`estimators`, `stopping` says when it is enough, `null` what chance alone draws. `masks`, `fills`,
`similarity` and `estimators` plug in and do not know one another; `bound_masks` is what masks and
estimators agree on.
"""
