"""The techniques, one file each: its options, and one `Technique` record, `TECHNIQUE`."""
