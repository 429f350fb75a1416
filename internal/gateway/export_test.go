package gateway

import "strings"

// Routes lists the public API as "METHOD /path", with parameters as OpenAPI
// writes them.
func (s *Server) Routes() []string {
	list := make([]string, len(s.routes))
	for i, r := range s.routes {
		parts := strings.Split(r.path, "/")
		for j, p := range parts {
			if name, ok := strings.CutPrefix(p, ":"); ok {
				parts[j] = "{" + name + "}"
			}
		}
		list[i] = r.method + " " + strings.Join(parts, "/")
	}
	return list
}
