// The conversation a task or a call carries. Pure vocabulary.

export const MESSAGE_ROLES = ['system', 'user', 'assistant', 'tool'] as const;
export type MessageRole = (typeof MESSAGE_ROLES)[number];

export type TextPart = { readonly type: 'text'; readonly text: string };
export type Message = { readonly role: MessageRole; readonly content: string | readonly TextPart[] };

/** What the answer must look like: free text, any JSON object, or JSON that matches a schema. */
export type ResponseFormat =
  | { readonly type: 'text' }
  | { readonly type: 'json' }
  | {
      readonly type: 'json_schema';
      readonly name?: string;
      readonly schema: Readonly<Record<string, unknown>>;
    };

/** The text of a message, its parts joined. */
export function messageText(message: Message): string {
  return typeof message.content === 'string'
    ? message.content
    : message.content.map((part) => part.text).join('');
}
