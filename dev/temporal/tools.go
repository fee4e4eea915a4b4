//go:build tools

// Package temporal pins the Temporal CLI, whose dev server the embedded stack runs. Nothing here is linked into Weir.
package temporal

import _ "github.com/temporalio/cli/cmd/temporal"
