"""Submits one task to Weir with a plain Temporal client, waits for it, and prints its result or why there is none.

It knows nothing of Weir but its public contract: workflow type `runTask`, task queues `weir-<priority>`, one JSON object as
input, a result object, and failures that carry a type and one details object.

    pip install temporalio                        # tried with 1.35
    TEMPORAL_ADDRESS=127.0.0.1:7233 python submit.py "Why is the sky blue?" --user ada --usd 0.05
    python submit.py --input '{"userId": "ada", "budget": {"usd": -1}}'       # refused: InvalidTask, with a path for each fault

Exit code: 0 with a result, 1 without one, 2 when Temporal cannot be reached.
"""

import argparse
import asyncio
import json
import os
import sys
import uuid

from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Submit a task to Weir over Temporal.")
    parser.add_argument("query", nargs="?", help="what the task is to answer")
    parser.add_argument("--user", default="python-example", help="who pays for it")
    parser.add_argument("--usd", help="the most it may cost, such as 0.05")
    parser.add_argument("--priority", default="normal", choices=["critical", "high", "normal", "low"])
    parser.add_argument("--input", help="the whole input as JSON, instead of the above; '-' reads it from stdin")
    parser.add_argument("--id", default=f"python-{uuid.uuid4()}", help="the task's id")
    arguments = parser.parse_args()
    if (arguments.query is None) == (arguments.input is None):
        parser.error("give a query or --input")
    return arguments


def to_input(arguments: argparse.Namespace) -> object:
    if arguments.input is not None:
        return json.loads(sys.stdin.read() if arguments.input == "-" else arguments.input)
    task = {"query": arguments.query, "userId": arguments.user, "priority": arguments.priority}
    if arguments.usd is not None:
        task["budget"] = {"usd": arguments.usd}
    return task


def describe(error: WorkflowFailureError) -> dict:
    """The failure's type and details. One that comes from an activity is wrapped once more."""
    cause = error.cause.cause if isinstance(error.cause, ActivityError) else error.cause
    if isinstance(cause, ApplicationError):
        return {"type": cause.type, "message": cause.message, "details": cause.details[0] if cause.details else None}
    if isinstance(cause, CancelledError):
        return {"type": "Cancelled", "message": str(cause), "details": None}
    return {"type": type(cause).__name__, "message": str(cause), "details": None}


async def main() -> int:
    arguments = read_arguments()
    address = os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233")
    namespace = os.environ.get("TEMPORAL_NAMESPACE", "default")
    try:
        client = await Client.connect(address, namespace=namespace)
    except RuntimeError as error:
        print(f"no Temporal at {address}: {error}", file=sys.stderr)
        return 2
    handle = await client.start_workflow(
        "runTask", to_input(arguments), id=arguments.id, task_queue=f"weir-{arguments.priority}"
    )
    print(f"task {handle.id}", file=sys.stderr)
    try:
        print(json.dumps(await handle.result(), indent=2, ensure_ascii=False))
        return 0
    except WorkflowFailureError as error:
        print(json.dumps(describe(error), indent=2, ensure_ascii=False))
        return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
