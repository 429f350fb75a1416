package projector

import "github.com/tidegate/tidegate/internal/epro"

// SetParseReport replaces the parser of reports until the returned function is called.
func SetParseReport(f func([]byte) (epro.Report, []epro.FieldProblem)) (restore func()) {
	was := parseReport
	parseReport = f
	return func() { parseReport = was }
}
