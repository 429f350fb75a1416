package app

import (
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/postgres"
)

// setting is one leaf of Config, found by reflection so that the file, the
// environment, `config default` and `config doc` can never disagree.
type setting struct {
	key   string // as in the file, dotted
	env   string
	doc   string
	value reflect.Value
}

func settings(c *Config) []setting {
	var out []setting
	var walk func(v reflect.Value, prefix string)
	walk = func(v reflect.Value, prefix string) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			key := prefix + f.Tag.Get("yaml")
			if v.Field(i).Kind() == reflect.Struct {
				walk(v.Field(i), key+".")
				continue
			}
			out = append(out, setting{
				key: key, doc: f.Tag.Get("doc"), value: v.Field(i),
				env: "TIDEGATE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_")),
			})
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return out
}

// overlayEnvironment sets what TIDEGATE_… variables name. A variable with that
// prefix that names nothing is an error, as an unknown key in the file is.
func overlayEnvironment(c *Config, environ []string) error {
	byEnv := map[string]setting{}
	for _, s := range settings(c) {
		byEnv[s.env] = s
	}
	for _, kv := range environ {
		name, text, _ := strings.Cut(kv, "=")
		// TIDEGATE_FAULT is read by test builds; others beside the settings are typing errors.
		if !strings.HasPrefix(name, "TIDEGATE_") || name == "TIDEGATE_FAULT" || name == "TIDEGATE_LONG" || name == "TIDEGATE_KILLS" {
			continue
		}
		s, ok := byEnv[name]
		if !ok {
			return fmt.Errorf("environment variable %s is not a setting; `tidegate config doc` lists them", name)
		}
		if err := s.set(text); err != nil {
			return fmt.Errorf("environment variable %s: %w", name, err)
		}
		// Environments are read by others: /proc, crash reports, child processes.
		if u, err := url.Parse(text); err == nil && postgres.IsURL(text) {
			if _, has := u.User.Password(); has || u.Query().Has("password") {
				return fmt.Errorf("environment variable %s holds a password: put it into a file and name that with TIDEGATE_POSTGRES_PASSWORDFILE", name)
			}
		}
	}
	return nil
}

func (s setting) set(text string) error {
	switch s.value.Interface().(type) {
	case string:
		s.value.SetString(text)
	case []string:
		var list []string
		if text != "" {
			list = strings.Split(text, ",")
		}
		s.value.Set(reflect.ValueOf(list))
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("must be true or false")
		}
		s.value.SetBool(b)
	case float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("must be a number, such as 0.1")
		}
		s.value.SetFloat(f)
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("must be a duration such as 2s or 500ms")
		}
		s.value.SetInt(int64(d))
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("must be a whole number")
		}
		s.value.SetInt(int64(n))
	default:
		return fmt.Errorf("cannot be set from the environment")
	}
	return nil
}

func (s setting) text() string {
	switch v := s.value.Interface().(type) {
	case []string:
		quoted := make([]string, len(v))
		for i := range v {
			quoted[i] = strconv.Quote(v[i])
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case string:
		if v == "" || strings.ContainsAny(v, ":#{}[],") {
			return strconv.Quote(v)
		}
		return v
	default:
		return fmt.Sprint(v)
	}
}

// writeConfig prints c as a file that LoadConfig reads, each key under its
// explanation when withDoc is set.
func writeConfig(w io.Writer, c Config, withDoc bool) error {
	section := ""
	for _, s := range settings(&c) {
		name, indent := s.key, ""
		if head, tail, ok := strings.Cut(s.key, "."); ok {
			if head != section {
				section = head
				if _, err := fmt.Fprintf(w, "%s:\n", head); err != nil {
					return err
				}
			}
			name, indent = tail, "  "
		}
		if withDoc {
			if _, err := fmt.Fprintf(w, "%s# %s\n%s# Environment: %s\n", indent, s.doc, indent, s.env); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "%s%s: %s\n", indent, name, s.text()); err != nil {
			return err
		}
	}
	return nil
}
