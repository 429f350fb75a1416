package main

import (
	"errors"
	"flag"
	"fmt"
	"log" //nolint:depguard // the original design logs with it
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
)

const contenderCommand = "contender"

// patientReport is the body of the original contract, with its binding tags. Its
// `required` on an integer refuses a score of 0, so the benchmark sends none.
type patientReport struct {
	PatientID string `json:"patientId" binding:"required"`
	TrialID   string `json:"trialId" binding:"required"`
	Timestamp string `json:"timestamp" binding:"required"`
	QolScore  int    `json:"qolScore" binding:"required,min=0,max=10"`
	Comments  string `json:"comments"`
}

// serveContender runs one of the handlers that keep nothing, as a process of its
// own, and prints its address.
func serveContender(args []string) error {
	flags := flag.NewFlagSet(contenderCommand, flag.ContinueOnError)
	kind := flags.String("kind", "bare", "bare or original")
	logTo := flags.String("log", os.DevNull, "file for the original design's log lines")
	if err := flags.Parse(args); err != nil {
		return err
	}
	gin.SetMode(gin.ReleaseMode)
	var handler http.Handler
	switch *kind {
	case "bare":
		handler = bareHandler()
	case "original":
		f, err := os.OpenFile(*logTo, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		handler = originalHandler(f)
	default:
		return errors.New("there is no such contender")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return (&http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}).Serve(l)
}

// bareHandler is Gin's router, one bind without rules, and the answer.
func bareHandler() http.Handler {
	e := gin.New()
	e.POST(reportPath, func(c *gin.Context) {
		var r struct {
			PatientID string `json:"patientId"`
			TrialID   string `json:"trialId"`
			Timestamp string `json:"timestamp"`
			QolScore  int    `json:"qolScore"`
			Comments  string `json:"comments"`
		}
		if err := c.ShouldBindJSON(&r); err != nil {
			c.JSON(http.StatusBadRequest, gin.H{"error": "invalid"})
			return
		}
		answerOriginal(c, r.PatientID)
	})
	return e
}

// originalHandler is the original design's: Gin's default middleware with its
// access log, bind with rules, a log line for the report, the answer.
func originalHandler(logFile *os.File) http.Handler {
	gin.DefaultWriter, gin.DefaultErrorWriter = logFile, logFile
	log.SetOutput(logFile)
	e := gin.Default()
	e.POST(reportPath, func(c *gin.Context) {
		var r patientReport
		if err := c.ShouldBindJSON(&r); err != nil {
			c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
			return
		}
		log.Printf("Received report for patient %s in trial %s with QoL score %d", r.PatientID, r.TrialID, r.QolScore)
		answerOriginal(c, r.PatientID)
	})
	return e
}

func answerOriginal(c *gin.Context, patient string) {
	c.JSON(http.StatusOK, gin.H{"status": "success", "message": "Report for patient " + patient + " received."})
}
