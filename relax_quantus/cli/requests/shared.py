"""Options that several commands share; they are in `relax_quantus.cli.options`."""

from relax_quantus.cli.options import DOMAIN as DOMAIN
from relax_quantus.cli.options import ENCODER as ENCODER
from relax_quantus.cli.options import RESAMPLER as RESAMPLER
from relax_quantus.cli.options import RESULTS as RESULTS
from relax_quantus.cli.options import SEED as SEED
from relax_quantus.cli.options import Domain as Domain
from relax_quantus.cli.options import EncoderOptions as EncoderOptions
from relax_quantus.cli.options import MessageOptions as MessageOptions
from relax_quantus.cli.options import NetworkOptions as NetworkOptions
from relax_quantus.cli.options import Resampler as Resampler
from relax_quantus.cli.options import Seed as Seed
