package app_test

import (
	"os"
	"testing"

	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

func TestMain(m *testing.M) {
	code := m.Run()
	services.CleanUp()
	server.CleanUp()
	os.Exit(code)
}
