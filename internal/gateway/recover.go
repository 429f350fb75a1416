package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"

	"github.com/gin-gonic/gin"
)

// recovered answers a panic and logs where it happened. The value of a panic is
// never logged, nor are the arguments on its stack: either may hold what a
// patient wrote.
func (s *Server) recovered(c *gin.Context, r *route, v any) {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	s.metrics.panics.Inc()
	s.log.ErrorContext(c.Request.Context(), "a request ended in a panic; the server goes on",
		"route", r.path, "method", r.method, "panicType", fmt.Sprintf("%T", v), "stack", stack())
	if c.Writer.Written() {
		panic(http.ErrAbortHandler)
	}
	p := &problem{
		status: http.StatusInternalServerError, code: codeInternal,
		detail: "The server made a mistake.",
	}
	if r.writes {
		p.accepted = acceptedUnknown
		p.detail = "The server made a mistake. Whether this was recorded is not known; send the same again, with the same id."
	}
	p.write(c)
}

// stack is the places on the panicking stack, innermost first, without values.
func stack() string {
	var pcs [48]uintptr
	// Skip runtime.Callers, this, recovered, and the deferred function.
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs[:])])
	var b strings.Builder
	for {
		f, more := frames.Next()
		if b.Len() > 0 {
			b.WriteString(" < ")
		}
		fmt.Fprintf(&b, "%s (%s:%d)", f.Function, f.File[strings.LastIndexByte(f.File, '/')+1:], f.Line)
		if !more {
			return b.String()
		}
	}
}
