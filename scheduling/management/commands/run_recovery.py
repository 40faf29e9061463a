from dtsproject.command import LoopCommand
from scheduling.recovery import Recovery


class Command(LoopCommand):
    help = "Run recovery: what lost workers held is queued again; old history is pruned."
    loop_class = Recovery
