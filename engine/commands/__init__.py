"""What users call, one file per command: `nn-cift NAME`, and jobs/NAME.py for `ray job submit`."""
