// The one kind of error that the embedded stack throws on purpose. No logic here.

/** Something outside went wrong. The message is for the user: what failed, why, the remedy, and the end of its log. */
export class StackError extends Error {
  override readonly name: string = 'StackError';
}

/** A part could not listen because its port was taken between the check and the start; another port helps. */
export class PortTakenError extends StackError {
  override readonly name = 'PortTakenError';
}
