package main

import (
	"context"
	"strings"
)

func measureWave(context.Context, *options, string, *strings.Builder) error { return nil }
func measureSlow(context.Context, *options, string, *strings.Builder) error { return nil }
