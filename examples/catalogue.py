"""A product table becomes a folder of pictures: `python examples/catalogue.py`, while a farm runs.

IMAGEFARM_URL and IMAGEFARM_API_KEY say which farm; the default is the one on this machine.
"""

from pathlib import Path

from imagefarm import Client

TABLE = Path(__file__).with_name("products.csv")
TEMPLATE = "{{ product }}, {{ background }}"

with Client() as farm:
    quote = farm.batches.submit(TABLE, template=TEMPLATE, dry_run=True).quote
    print(f"{quote.pictures} pictures, about {quote.gpu_seconds:.0f} GPU-seconds; the first: {quote.prompts[0]}")
    batch = farm.batches.submit(TABLE, template=TEMPLATE, name="catalogue")
    batch = farm.batches.wait(batch, on_progress=lambda seen: print(f"{seen.counts.ended} of {seen.counts.jobs}"))
    for path in farm.batches.download(batch, "catalogue"):
        print(path)
