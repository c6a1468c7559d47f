// Imported before anything else: commands say in one line of their own what is missing.
import { silenceNotice } from "../setup/notice.js";

silenceNotice();
