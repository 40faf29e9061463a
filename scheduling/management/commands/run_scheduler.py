from dtsproject.command import LoopCommand
from scheduling.scheduler import Scheduler


class Command(LoopCommand):
    help = "Run the scheduler: pending tasks are queued in the order of the policy."
    loop_class = Scheduler
