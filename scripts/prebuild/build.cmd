@node "%~dp0build.mjs" %*
